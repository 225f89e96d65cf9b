//! Builds LuaJIT as Rover needs it: code that LuaJIT has compiled looks at the hook too, so that a loop which never ends
//! can be interrupted with the JIT compiler on. A program that links this crate links that LuaJIT.
#![allow(unsafe_code)]

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // What make and the crate below read. The variables of the C compiler are told by the crate itself.
    for variable in
        ["CFLAGS", "HOST_CC", "STATIC_CC", "TARGET_AR", "TARGET_LD", "TARGET_STRIP", "MACOSX_DEPLOYMENT_TARGET"]
    {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    // The crate sets XCFLAGS itself, and leaves CFLAGS to others.
    let given = env::var("CFLAGS").unwrap_or_default();
    // SAFETY: this program has one thread.
    unsafe { env::set_var("CFLAGS", format!("{given} -DLUAJIT_ENABLE_CHECKHOOK")) };
    let luajit = luajit_src::Build::new().lua52compat(true).build();
    println!("cargo:rustc-link-search=native={}", luajit.lib_dir().display());
    for library in luajit.libs() {
        // All of it: the linker meets mlua, which asks for most of it, behind this crate, and does not look back.
        println!("cargo:rustc-link-lib=static:+whole-archive={library}");
    }
}
