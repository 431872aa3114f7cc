//! One rank of one trial: trains a network, or predicts with trained ones. The program is `credence-trainer`.
//!
//! | module | decides |
//! |---|---|
//! | [`agent`], [`log`], [`beacon`] | how the process speaks with the agent that started it, and when it leaves |
//! | [`fence`] | until when the rank may compute without hearing from its agent |
//! | [`warm`] | a process that is started before its launch is known, and runs several |
//! | [`rank`] | what a launch comes to, and what a failure is called |
//! | [`train`] | training: steps, optimizer, learning rate, what is measured |
//! | [`checkpoint`], [`storage`] | what is kept of training, and how files reach the disk |
//! | [`evaluate`] | predictions of trained networks, and their scores |
//! | [`model`], [`uq`] | the network, and how a method changes its layers |
//! | [`pretrained`] | weights of a file to start from |
//! | [`data`], [`seed`] | which images, and which random numbers, at which step |
//! | `timing` | when steps begin, for who measures them |
//! | [`group`], [`device`], [`memory`] | the other ranks, where tensors live, and what is told when they do not fit |
//!
//! Synchronous throughout: a rank does one thing at a time, and the three things that may overlap with
//! training (commands, batches, checkpoints) have a thread each. Knows nothing of the network protocol,
//! the coordinator, or retries.

pub mod agent;
pub mod beacon;
pub mod checkpoint;
pub mod data;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod fence;
pub mod group;
pub mod log;
pub mod memory;
pub mod model;
pub mod pretrained;
pub mod rank;
pub mod seed;
pub mod storage;
mod timing;
pub mod train;
pub mod uq;
pub mod warm;
