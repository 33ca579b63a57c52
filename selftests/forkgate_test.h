/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * forkgate_test.h - the former names of what is in test/, for selftests/lib
 *
 * It must go as soon as those tests use the new ones.
 */
#ifndef FORKGATE_TEST_H
#define FORKGATE_TEST_H

#include "test/fault.h"
#include "test/harness.h"
#include "test/kmsg.h"
#include "test/step.h"

#include <sys/stat.h>

#define fg_state gate_state
#define fg_waiting worker_waits
#define fg_setup gate_setup
#define fg_call gate_call
#define fg_msync msync_call
#define fg_set_policy gate_set_policy
#define fg_policy gate_policy
#define fg_patient patient_policy
#define fg_leave_uncounted gate_leave_by_call
#define fg_enter_uncounted gate_enter_by_call
#define fg_enter_flags gate_enter_flags
#define fg_enter_call gate_enter_call
#define fg_leave gate_leave
#define fg_enter gate_enter
#define fg_count gate_count
#define fg_uncount gate_uncount
#define fg_admit gate_admit
#define fg_wake gate_wake
#define fg_write_file write_file
#define fg_read_file read_file
#define fg_release gate_release
#define fg_register gate_register
#define fg_prepare_full gate_prepare_with
#define fg_prepare gate_prepare
#define fg_futex sys_futex
#define fg_gettid sys_gettid
#define fg_open gate_open
#define fg_map gate_map
#define fg_mmap map_device
#define fg_slot gate_slot
#define fg_asleep task_asleep
#define fg_gone task_ended
#define fg_task_state task_state
#define fg_nap wait_tick
#define fg_limit wait_limit
#define fg_slow slow_factor
#define fg_kmsg_open kmsg_open
#define fg_kmsg_find kmsg_find
#define fg_exec_helper exec_helper
#define fg_fail_nth_open fail_nth_open
#define fg_has_steps have_steps
#define FG_MEMORY MEMORY
#define FG_FILES FILES
#define FG_BOTH BOTH
#define FG_SECOND NSEC_PER_SEC
#define FG_MILLISECOND NSEC_PER_MSEC
#define FG_DEVICE DEVICE
#define FG_DEBUGFS DEBUGFS

#endif
