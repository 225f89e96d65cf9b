//! Lets C modules find Lua: the binary exports the `lua_*` and `luaL_*` functions, as the `luajit` command does.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-rdynamic");
}
