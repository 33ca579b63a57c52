// SPDX-License-Identifier: GPL-2.0-only
//! Recipe of forkgate-languages(7): a lock of Rust's that is free in every child. Without the section the child
//! finds it locked. Must not wait for the lock in the child: that would be for ever.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

// guide: begin
use std::io;
use std::marker::PhantomData;
use std::os::raw::{c_int, c_uint};
use std::sync::Mutex;

#[link(name = "forkgate")]
extern "C" {
    fn forkgate_enter(domains: c_uint) -> c_int;
    fn forkgate_leave(domains: c_uint);
}

pub const MEMORY: c_uint = 1;
pub const FILES: c_uint = 2;

/// A section, which ends with its scope, on its thread.
pub struct Section(c_uint, PhantomData<*const ()>);

impl Section {
    pub fn enter(domains: c_uint) -> io::Result<Section> {
        match unsafe { forkgate_enter(domains) } {
            0 => Ok(Section(domains, PhantomData)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        unsafe { forkgate_leave(self.0) }
    }
}

static CACHE: Mutex<Vec<u64>> = Mutex::new(Vec::new());

fn change_cache<F: FnOnce(&mut Vec<u64>)>(change: F) -> io::Result<()> {
    let _section = Section::enter(MEMORY)?;
    // Declared second, and so unlocked before the section ends
    let mut cache = CACHE.lock().unwrap();
    change(&mut cache);
    Ok(())
}
// guide: end

const EBUSY: i32 = 16;
const HOLD: Duration = Duration::from_secs(2);

fn main() -> io::Result<()> {
    let (half_way, at_half_way) = channel();
    let (forked, has_forked) = channel();
    let changer = thread::spawn(move || {
        change_cache(|cache| {
            cache.push(1);
            half_way.send(()).unwrap();
            let _ = has_forked.recv_timeout(HOLD);
        })
    });

    at_half_way.recv().unwrap();
    let in_child = || match CACHE.try_lock() {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::from_raw_os_error(EBUSY)),
    };
    let child = unsafe { Command::new("true").pre_exec(in_child).spawn() };
    let _ = forked.send(());
    changer.join().unwrap()?;

    match child {
        Ok(mut child) => {
            println!("# the lock is free in the child");
            assert!(child.wait()?.success());
            Ok(())
        }
        Err(error) => {
            println!("# the child says: {}", error);
            std::process::exit(if error.raw_os_error() == Some(EBUSY) { 1 } else { 2 })
        }
    }
}
