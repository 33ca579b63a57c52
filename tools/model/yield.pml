/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * yield.pml - a blocked newcomer, or a queued forker, holds a lock that a section needs
 */
#define NT	4
#ifndef QUEUE
#define NS	2
#else
#define NS	1
#endif

#define FORK_SIGNALS(t) \
	:: d_step { bounded && TIME_OUT(t) }

#include "gate.pml"

bool mutex;

inline lock(x)
{
	d_step { !x -> x = true }
}

inline unlock(x)
{
	x = false
}

/* in a section needs the lock */
proctype Needs(byte t; byte d)
{
end:	do
	:: enter(t, d); lock(mutex); unlock(mutex); leave(t, d)
	:: break
	od
}

/* enters with the lock held */
proctype Holds(byte t)
{
end:	do
	:: lock(mutex); enter(t, M); leave(t, M); unlock(mutex)
	:: break
	od
}

/* prepares; an atfork handler needs the lock */
proctype Prepares(byte t)
{
	byte out;
	bool bounded;
end:	do
	:: out = 0;
		d_step { begin_prepare(t, M, PREPARES); skip };
		wait_fork(t);
		if
		:: out
		:: else ->
			lock(mutex);
			unlock(mutex);
			d_step { bounded = true; begin_fork(t, M); skip };
			wait_fork(t);
			bounded = false;
			if
			:: d_step { HAS_DOMAIN(t) -> drop(t); skip }
			:: !HAS_DOMAIN(t)
			fi
		fi
	:: break
	od
}

/* forks with the lock held; what it needs is idle */
proctype Forker(byte t)
{
	byte out;
	bool bounded;
end:	do
	:: lock(mutex); fork(t, F); unlock(mutex)
	:: break
	od
}

proctype Other(byte t; byte n)
{
	byte out;
	bool bounded;
end:	do
	:: fork(t, n)
	:: break
	od
}

proctype Timer()
{
end:	do
	:: d_step { T[2].deadline && !mutant(NO_EXPIRY) -> expire(2); skip }
	:: d_step { mutant(SELF_UNWOKEN) && T[2].deadline -> under = BIT(3); expire(2); under = 0 }
	:: d_step { PATIENCE_ENDS -> patience_ends(); skip }
	od
}

init {
	atomic {
#if defined(QUEUE)
		run Needs(0, M);
		run Other(1, F);
		run Prepares(2);
		run Forker(3);
#elif defined(COPY)	/* a copy of M beside a drain of F */
		run Needs(0, F);
		run Holds(1);
		run Other(2, M);
		run Other(3, F);
#else
		run Needs(0, M);
		run Holds(1);
		run Prepares(2);
		run Forker(3);
#endif
		run Timer()
	}
}
