//! What the process has to give: threads for work that blocks, turns, descriptors, bytes, randomness.

pub(crate) mod blocking; // work that blocks a thread
pub(crate) mod budget; // how many bytes may be in flight
pub(crate) mod random; // bytes that nobody can foresee
pub(crate) mod resources; // what the system lets the process have
pub(crate) mod turn; // how long they go on before others have theirs
