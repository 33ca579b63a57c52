/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * own-copy.pml - the library's own gate: from the verification of a ticket to the verdict on the copy
 */
#define NT	3
#define NC	4
#define HANDLER	3		/* in thread 0 */
#ifdef SIGNALS
#define WORDS	2
#endif
#ifdef WIDER
#define NEED	BOTH
#else
#define NEED	M
#endif
#include "own.pml"

bool handling;
byte libc;			/* a lock that a fork takes after its ticket was verified: who has it, plus 1 */
bool child[NC];			/* the child of this copy has not judged it */

/* The child has come so far. Who finds another copy in its word is complete: else it would have been killed before. */
inline child_judges(c)
{
	judge(c);
	exclusion = !(k || E[c].word == REUSED) || !E[c].dirty;
	assert(exclusion);
	child[c] = false
}

/* in the parent, when the call has returned */
inline parent_judges(c, t)
{
	d_step {
		copied(c, t);
		if
		:: child[c] && (lives || mutant(OWN_SPOILED_KEPT)) ->
			exclusion = !E[c].dirty;
			assert(exclusion);
			child[c] = false
		:: else
		fi;
		skip
	};
	d_step {
		child[c] = false;	/* killed, if it is spoiled */
		E[c].word = 0;
		E[c].dirty = false;
		skip
	}
}

/* Into result: whether it may copy */
inline verify(c, t, domains)
{
	d_step { try_copy(c, t, domains); skip };
	if
	:: E[c].result != GRANTED ->
		prepare_timed(c, t, domains);
		if
		:: d_step { E[c].result == GRANTED -> try_copy(c, t, domains); skip }
		:: E[c].result != GRANTED
		fi
	:: else
	fi
}

inline clone(c, t, domains)
{
	d_step { begin_copy(c, t, domains); skip };
	d_step { E[c].copies = 0; child[c] = true; skip }
}

inline fork(c, t, domains, locks)
{
	prepare(c, t, domains);
	if
	:: E[c].result == GRANTED ->
		verify(c, t, domains);
		if
		:: E[c].result == GRANTED ->
			if
			:: locks -> atomic { libc == 0 -> libc = t + 1 }
			:: else
			fi;
			clone(c, t, domains);
			if
			:: locks -> libc = 0
			:: else
			fi;
			parent_judges(c, t)
		:: else			/* refused: its child ends */
		fi
	:: else
	fi;
	E[c].result = WAITS
}

active proctype Locker() provided (!handling)
{
end:	do
	:: fork(0, 0, M, true)
	:: break
	od
}

#ifdef SIGNALS
/* It must not wait for a lock that the thread itself has, nor have others wait for that meanwhile. */
active proctype Handler()
{
end:	do
	:: d_step { !handling && libc != 1 && !E[0].copies -> handling = true };
		fork(HANDLER, 0, NEED, false);
		handling = false
	:: break
	od
}
#endif

active proctype Section()
{
end:	do
	:: atomic { libc == 0 -> libc = 2 };
		enter(1, M);
		leave(1, M);
		libc = 0
#ifdef SIGNALS
	:: enter(1, M); leave(1, M)
#endif
	:: break
	od
}

#ifndef ALONE
active proctype Other()
{
end:	do
#ifdef QUEUE
	:: atomic { libc == 0 -> libc = 3 };
		fork(2, 2, M, false);
		libc = 0
#else
	:: fork(2, 2, M, false)
#endif
	:: break
	od
}
#endif

active proctype Child()
{
end:	do
	:: d_step { child[0] -> child_judges(0); skip }
#ifdef SIGNALS
	:: d_step { child[HANDLER] -> child_judges(HANDLER); skip }
#endif
	od
}

init { run Clock() }
