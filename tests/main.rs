//! Behaviour tests of coffer: the real binaries, driven from outside, all in one test binary.
//!
//! [`harness`] starts servers and runs tools; every other module is one behaviour.

mod audit;
mod backup;
mod bad_input;
mod budget;
mod canary;
mod commands;
mod crash;
mod declarations;
mod deliveries;
mod demo;
mod drain;
mod environment;
mod etcd_access;
mod faults;
mod flood;
mod fuzz_corpus;
mod harness;
mod health;
mod history;
mod injection;
mod instances;
mod keys;
mod lifetime;
mod moving;
mod operations;
mod permissions;
mod platform;
mod power_loss;
mod pressure;
mod products;
mod prompt;
mod readme;
mod redaction;
mod replicas;
mod rolling;
mod rotation;
mod serving;
mod settings;
mod start_tokens;
mod supervised;
mod templates;
mod tidy;
mod tls;
mod watch;
