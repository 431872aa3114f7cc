//! Rules of the workspace that the compiler does not know: who may depend on whom, where `unsafe` may be, and how
//! large a file may grow. Needs no built program.

mod dependencies;
mod sources;
