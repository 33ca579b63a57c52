/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kept.pml - handlers that fork, forks that a signal interrupts
 */
#ifdef CIRCLE
#define NT	3
#ifdef LEVELS
#define NS	3
#else
#define NS	2
#endif
#else
#define NT	3
#define NS	1
#endif

bool handling[NT];	/* the handler of that thread runs */
bool sleeps[NT];	/* that thread is in the kernel */
bool signal[NT];	/* a signal wants it out of there */

#define ASLEEP(t)	sleeps[t] = T[t].entry != 0
#define AWAKE_AGAIN(t)	return_to_user(t)
#define ENTRY_SIGNALS(t) \
		:: d_step { signal[t] && T[t].entry == BLOCKED -> interrupt_entry(t); skip }; \
		   d_step { restart_entry(t); ASLEEP(t); skip }

/* the wait of a clone: its place is kept, it is restarted when the handler returns */
#define FORK_SIGNALS(t) \
	:: d_step { signal[t] && FORK_WAITS(t) && !out && !ANY(IS_RELEASED) -> hold(t); return_to_user(t); skip }; \
	   d_step { sleeps[t] = true; begin_fork(t, n); skip } \
	:: d_step { LIMITED(t) && TIME_OUT(t) }

#ifdef TIMES
#define LIMITED(t)	((t) == 2)
#endif

#include "gate.pml"

inline return_to_user(t)
{
	sleeps[t] = false;
	handling[t] = handling[t] || signal[t];
	signal[t] = false
}

/* K4: the call returns to user mode with the levels, to be restarted */
inline interrupt_entry(t)
{
	g0 = T[t].levels[0];
	g1 = T[t].levels[1];
	T[t].levels[0] = 0;
	T[t].levels[1] = 0;
	T[t].nested = false;
	T[t].entry = 0;
	barrier(t);
	return_to_user(t)
}

inline restart_entry(t)
{
	T[t].levels[0] = g0;
	T[t].levels[1] = g1;
	g0 = 0;
	g1 = 0;
	kernel_enter(t, 0, 0, 0)
}

/* a clone as the kernel does it: signals interrupt it while it waits, or copies */
inline clone(t, N)
{
	n = N;
	d_step { sleeps[t] = true; begin_fork(t, n); skip };
	do
	:: wait_fork(t);
		if
		:: d_step { HAS_DOMAIN(t) -> drop(t); n = 0; return_to_user(t); skip };
			break
		:: d_step { !HAS_DOMAIN(t) -> n = 0; return_to_user(t); skip };
			break
		:: d_step { HAS_DOMAIN(t) && signal[t] -> hold(t); return_to_user(t); skip };
			d_step { sleeps[t] = true; begin_fork(t, n); skip }
		fi
	od
}

proctype Thread0() provided (!handling[0])
{
	byte g0, g1, n, out;
end:	do
#ifndef DRIVER
	:: enter(0, M); leave(0, M)
#endif
	:: clone(0, MF)
	:: break
	od
}

proctype Handler0()
{
	byte g0, g1, n, out;
end:	do
	::	if
		:: d_step { !sleeps[0] && !handling[0] -> handling[0] = true }
		:: d_step { sleeps[0] && !handling[0] -> signal[0] = true }; handling[0]
		fi;
#ifdef DRIVER	/* waits for a fork that the clone which it has interrupted could bring on */
		T[2].state != DRAINING;
#else
		if
		:: enter(0, M); leave(0, M)
		:: clone(0, F)
		fi;
#endif
		handling[0] = false
	:: break
	od
}

proctype Thread1()
{
	byte g0, g1, n, out;
end:	do
	:: enter(1, F);
		if
		:: clone(1, M)
		:: true
		fi;
		leave(1, F)
	:: break
	od
}

proctype Section(byte t)
{
	byte g0, g1;
end:	do
	:: enter(t, M); leave(t, M)
	:: break
	od
}

proctype Forker(byte t; byte N)
{
	byte n, out;
end:	do
	:: clone(t, N)
	:: break
	od
}

/* a place ends some time after its thread went to user mode */
proctype Timer()
{
end:	do
	:: d_step { T[0].deadline -> expire(0); skip }
	od
}

init {
	atomic {
		run Thread0();
		run Handler0();
#ifdef CIRCLE
		run Thread1();
#ifdef LEVELS
		run Section(2);
#else
		run Forker(2, M);
#endif
#elif defined(DRIVER)
		run Forker(1, MF);
		run Forker(2, MF);
#else
		run Forker(1, F);
		run Forker(2, M);
#endif
#ifdef TIMES
		run Times()
#elif !defined(DRIVER)
		run Timer()
#endif
	}
}
