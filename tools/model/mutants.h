/* SPDX-License-Identifier: GPL-2.0-only */
/* names of the mutants, see README.md */
#ifndef MUTANT
#define MUTANT			0
#endif
#define mutant(m)		((m) == MUTANT)

#define NO_IPI			1
#define IPI_FIRST		2
#define NO_RECHECK		3
#define LAST_LEAVER_WAKES	4
#define HANDOVER_LATE		5
#define EXIT_KEEPS		6
#define FAILURE_KEEPS		7
#define CURSOR_PAST		8
#define TICKET_KEPT		9
#define NO_CIRCLE_CHECK		10
#define TICKET_TRUSTED		11
#define OUTERMOST_ONLY		12
#define NESTED_KEPT_OUT		13
#define NESTED_NEVER_OUT	14
#define NO_RESTART		15
#define NO_YIELD		16
#define GIVEBACK_SILENT		20
#define FORK_SILENT		21
#define NO_STRICT		22
#define GRANT_EARLY		23
#define STAYS_FENCED		24
#define INSIDE_QUEUES		25
#define NO_MB			26
#define E3_FIRST		27
#define L3_FIRST		28
#define L1_RELAXED		29
#define JOIN_UNFENCED		30
#define KEPT_WAITS		31
#define ADMITTED_ONLY		32
#define STAYS_BARRED		33
#define HOLDER_KEPT_OUT		34
#define CLONE_UNBOUNDED		35
#define YIELD_KEEPS_QUEUE	36
#define EXIT_KEEPS_TICKET	37
#define CHILD_INHERITS		38
#define GRANT_BESIDE		39
#define UNBAR_NESTED		40
#define ENTRY_SILENT		41
#define FENCE_UNCHECKED		42
#define RELEASE_SILENT		43
#define NO_EXPIRY		44
#define QUEUE_LAX		45
