/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vfork.pml - whose slot it is: vfork children that act for their parents
 *
 * A model by itself: module/thread.c does not depend on the rest of the
 * protocol. Task 0 may vfork task 1, that task 2, or 0 one after the other;
 * each may enter a section, call, exec, exit and be killed at any time. Slot t
 * is the one that task t gets when it has none to act in.
 */

#include "mutants.h"

#define TASKS	3
#define NONE	TASKS

typedef Task {
	bool alive;
	bool user;		/* runs in user mode */
	bool killed;		/* SIGKILL is pending */
	bool released;		/* its memory: a parent that waits for its vfork goes on */
	bool orphan;		/* a parent of its has gone on without it */
	bool in;		/* inside a section, of the slot that it counts in */
	byte awaits;		/* whose vfork it waits for */

	bool linked;		/* the rest is its fg_thread */
	byte slot;
	byte parent;
	byte child;
	bool survives;
	byte depth;		/* of its slot before its vfork: clone->depth */
	byte taken;		/* levels out of its slot while it waits to enter (K3) */
}

Task K[TASKS];
byte owner[TASKS], actor[TASKS], survivors[TASKS];
byte depth[TASKS];		/* what user space has counted */

hidden byte i, s, acts, kept, linked, counted, restored, freed;

/* does it run, or wait to go on, and no parent of its has gone on without it? */
#define RUNS(t)		(K[t].user && K[t].linked && !K[t].orphan)
#define WAITS(t)	(K[t].awaits != NONE && !K[t].killed && K[t].linked && !K[t].orphan)

/*
 * A task that runs acts; a slot has an owner while it is in use or needed; one that is gone neither owns nor acts;
 * a section is in its slot
 */
inline check()
{
	acts = true; kept = true; linked = true; counted = true;
	i = 0;
	do
	:: i < TASKS ->
		acts = acts && (!RUNS(i) || actor[K[i].slot] == i);
		kept = kept && (!(RUNS(i) || WAITS(i)) || owner[K[i].slot] != NONE);
		linked = linked && (owner[i] == NONE || (K[owner[i]].linked && K[owner[i]].slot == i)) &&
			 (actor[i] == NONE || (K[actor[i]].linked && K[actor[i]].slot == i));
		counted = counted && (!K[i].in || !K[i].user || !K[i].linked || depth[K[i].slot] > 0);
		i++
	:: else -> break
	od;
	assert(acts);
	assert(kept);
	assert(linked);
	assert(counted)
}

/* fg_thread_link() */
inline link(Q, S)
{
	s = S;
	K[Q].linked = true;
	K[Q].slot = s;
	actor[s] = Q;
	owner[s] = (owner[s] == NONE -> Q : owner[s])
}

/* fg_thread_unlink() */
inline unlink(t)
{
	if
	:: K[t].linked ->
		s = K[t].slot;
		survivors[s] = survivors[s] - K[t].survives;
		actor[s] = (actor[s] == t -> NONE : actor[s]);
		owner[s] = (owner[s] == t -> (mutant(FREED_UNDER_ACTOR) -> NONE : actor[s]) : owner[s]);
		if
		:: owner[s] == NONE && (!survivors[s] || mutant(FREED_UNDER_SURVIVOR)) ->
			actor[s] = NONE;
			depth[s] = 0
		:: else
		fi;
		K[t].linked = false;
		K[t].survives = false;
		K[t].slot = 0;
		K[t].in = false
	:: else
	fi
}

/* fg_thread_get(): one that does not act starts anew */
inline get(t)
{
	if
	:: K[t].linked && actor[K[t].slot] == t
	:: K[t].linked && actor[K[t].slot] != t && K[t].survives	/* -EAGAIN */
	:: else ->
		unlink(t);
		K[t].orphan = false;
		K[t].parent = NONE;
		K[t].child = NONE;
		link(t, t)
	fi;
	check()
}

/* fg_thread_stands(): no parent of t has gone on without it */
#define IS_CHILD(t)	(K[t].parent == NONE || K[K[t].parent].child == t)
#define STANDS(t)	(IS_CHILD(t) && (K[t].parent == NONE || IS_CHILD(K[t].parent)))

/* fg_thread_resume(), and t goes on, in user mode unless it was killed */
inline resume(t)
{
	s = K[t].slot;
	i = K[t].awaits;
	if
	:: K[t].child == i && K[t].killed && !mutant(KILLED_RESUMES) && owner[s] == t && K[i].linked ->
		owner[s] = (mutant(NO_HEIR) -> owner[s] : i)
	:: K[t].child == i && !(K[t].killed && !mutant(KILLED_RESUMES) && owner[s] == t && K[i].linked) ->
		if
		:: K[t].killed && K[i].linked ->
			K[i].survives = true;
			survivors[s]++
		:: else
		fi;
		if
		:: (!K[t].killed || mutant(KILLED_RESUMES)) && owner[s] != NONE && K[t].linked && STANDS(t) ->
			actor[s] = (mutant(STAND_IN_STAYS) -> actor[s] : t);
			if
			:: (!survivors[s] || mutant(SURVIVOR_FORGOTTEN)) && !mutant(NO_RESTORE) &&
			   !(depth[s] < K[t].depth && mutant(LEVELS_LOST)) -> depth[s] = K[t].depth
			:: else
			fi;
			restored = depth[s] == K[t].depth || survivors[s];
			assert(restored)
		:: else
		fi;
		K[t].child = NONE
	:: else
	fi;
	i = 0;
	do
	:: i < TASKS ->
		K[i].orphan = K[i].orphan || (!K[t].killed && K[i].user && K[i].parent != NONE &&
			(K[i].parent == t || K[K[i].parent].parent == t));
		i++
	:: else -> break
	od;
	K[t].awaits = NONE;
	K[t].depth = 0;
	K[t].user = !K[t].killed;
	check()
}

/* sched_process_fork: c acts for its parent t */
inline stand_in(t, c)
{
	K[c].alive = true;
	K[c].user = true;
	K[c].killed = false;
	K[c].released = false;
	K[c].awaits = NONE;
	K[c].in = false;
	K[c].orphan = false;
	K[c].child = NONE;
	K[c].parent = NONE;
	K[t].awaits = c;
	K[t].user = false;
	K[t].depth = depth[K[t].slot];
	if
	:: actor[K[t].slot] == t ->
		K[t].child = c;
		K[c].parent = t;
		link(c, K[t].slot)
	:: else
	fi;
	check()
}

inline vfork(t, c)
{
	d_step { K[t].user && !K[c].alive && !K[t].killed && !(c == 1 && K[2].alive) -> get(t); skip };
	d_step { stand_in(t, c); skip };
	d_step { K[c].released || K[t].killed -> resume(t); skip }
}

/* E1 and L1, by the fast path */
inline section(t)
{
	if
	:: d_step {
		K[t].user && K[t].linked && !K[t].in && depth[K[t].slot] < TASKS ->
			K[t].in = true;
			depth[K[t].slot]++;
			check();
			skip
	   }
	:: d_step {
		K[t].user && K[t].linked && K[t].in ->
			depth[K[t].slot]--;
			K[t].in = false;
			check();
			skip
	   }
	fi
}

/*
 * K3: a vfork child waits to enter, and all levels of its slot go out with its own; one that is killed there takes
 * them along. The levels of its parent are unadmitted then. Not in a nest: there they may get lost with it.
 */
inline wait_to_enter(t)
{
	d_step {
		K[t].user && K[t].linked && !K[t].in && K[t].parent == 0 && depth[K[t].slot] ->
			K[t].taken = depth[K[t].slot];
			depth[K[t].slot] = 0;
			skip
	};
	if
	:: d_step {
		K[t].killed -> K[t].taken = 0; K[t].user = false; skip
	   }
	:: d_step {
		!K[t].killed ->
			depth[K[t].slot] = depth[K[t].slot] + K[t].taken;
			K[t].taken = 0;
			skip
	   }
	fi
}

proctype Run(byte t)
{
end:	do
	:: K[t].alive ->
		do
		:: d_step { K[t].user && !K[t].killed -> get(t); skip }
		:: section(t)
		:: wait_to_enter(t)
		:: t == 0 -> vfork(0, 1)
		:: t == 0 -> vfork(0, 2)
		:: t == 1 -> vfork(1, 2)
		:: break	/* exit, exec, killed */
		od;
		skip;
		d_step { K[t].user = false; K[t].released = true; check(); skip };	/* mm_release() */
		d_step { unlink(t); check(); skip };	/* task_rename, sched_process_exit */
		d_step { K[t].alive = false; K[t].killed = false; K[t].orphan = false }
	od
}

proctype Killer()
{
end:	do
	:: d_step { K[0].alive && !K[0].released -> K[0].killed = true }
	:: d_step { K[1].alive && !K[1].released -> K[1].killed = true }
	:: d_step { K[2].alive && !K[2].released -> K[2].killed = true }
	od
}

/* nothing is left of tasks that are gone */
proctype End()
{
end:	d_step {
		!K[0].alive && !K[1].alive && !K[2].alive ->
			freed = owner[0] == NONE && owner[1] == NONE && owner[2] == NONE &&
				actor[0] == NONE && actor[1] == NONE && actor[2] == NONE &&
				!survivors[0] && !survivors[1] && !survivors[2];
			assert(freed)
	}
}

init {
	d_step {
		i = 0;
		do
		:: i < TASKS ->
			owner[i] = NONE;
			actor[i] = NONE;
			K[i].awaits = NONE;
			K[i].parent = NONE;
			K[i].child = NONE;
			i++
		:: else -> break
		od;
		K[0].alive = true;
		K[0].user = true
	}
	atomic {
		run Run(0);
		run Run(1);
		run Run(2);
		run Killer();
		run End()
	}
}
