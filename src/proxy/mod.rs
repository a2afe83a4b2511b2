//! The pump: listeners, workers, connections, upstream dialling and drain. Makes no decision about a document: frames
//! go into the session, and what it says is carried out.
//!
//! Every connection lives on one worker thread with both of its sockets, so that a message crosses no thread.

mod connection;
mod end;
mod incoming;
mod leg;
mod listen;
mod observe;
mod outgoing;
pub mod shared;
mod survey;
mod upstream;
mod worker;

pub use listen::{Listening, bind};
pub use shared::{Live, Shared, Times};
pub use survey::survey;
pub use worker::Workers;
