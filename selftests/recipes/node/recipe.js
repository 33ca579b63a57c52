// SPDX-License-Identifier: GPL-2.0-only
// Recipe of forkgate-languages(7): no program starts while a worker is in a files section. Without the section one
// does. Must not use the event loop while the worker is half-way: the main thread waits for it.
'use strict';

const { Worker, isMainThread, workerData } = require('worker_threads');
// guide: begin
const { spawn } = require('child_process');
const gate = require('forkgate');	// forkgate.node, in $NODE_PATH
const MEMORY = 1, FILES = 2;

// Does work while no fork copies the domains. It must not wait for the
// main thread, nor go on later: no promise, no callback.
function section(domains, work) {
  const error = gate.enter(domains);
  if (error)
    throw new Error(`fork gate: error ${error}`);
  try {
    return work();
  } finally {
    gate.leave(domains);
  }
}

// For a program that runs without LD_PRELOAD.
function start(...command) {
  const error = gate.prepare(MEMORY | FILES);
  if (error)
    throw new Error(`fork gate: error ${error}`);
  try {
    return spawn(...command);
  } finally {
    gate.release();
  }
}
// guide: end

const HOLD = 2000;
const LONG = 30000;
const HALF_WAY = 0, STARTED = 1, LEFT = 2;
const AFTER = 1, DURING = 2;

// The worker's part
function write(events) {
  const during = section(FILES, () => {
    tell(events, HALF_WAY, 1);
    return Atomics.wait(events, STARTED, 0, HOLD) !== 'timed-out';
  });

  tell(events, LEFT, during ? DURING : AFTER);
}

function tell(events, event, value) {
  Atomics.store(events, event, value);
  Atomics.notify(events, event);
}

function wait(events, event) {
  if (Atomics.wait(events, event, 0, LONG) === 'timed-out')
    process.exit(2);
  return Atomics.load(events, event);
}

if (isMainThread) {
  const prepared = !process.env.LD_PRELOAD;
  const events = new Int32Array(new SharedArrayBuffer(12));

  new Worker(__filename, { workerData: events });
  wait(events, HALF_WAY);
  const child = (prepared ? start : spawn)('true', []);
  tell(events, STARTED, 1);
  const during = wait(events, LEFT) === DURING;
  child.on('exit', code => {
    console.log(`# ${prepared ? 'prepared' : 'preloaded'}: the program started ` +
                `${during ? 'during' : 'after'} the section`);
    process.exitCode = code ? 2 : during ? 1 : 0;
  });
  child.on('error', error => {
    console.log(`# ${error}`);
    process.exitCode = 2;
  });
} else {
  write(workerData);
}
