//! The engine's decisions, one by one: what is saved and begun after each thing that can happen.
//!
//! The simulation shows that all of them together lose nothing; these tests say what each is.

mod budget;
mod canary;
mod clocks;
mod collecting;
mod creating;
mod expecting;
mod holding;
mod in_doubt;
mod keys;
mod limits;
mod noticing;
mod quota;
mod rescue;
mod rescue_money;
mod rig;
mod road;
mod room;
mod spending;
mod steering;
mod stuck;
mod values;
mod windows;
