/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * version.h - the version of forkgate, its one place
 *
 * Makefiles, the Python package and the packages read it from here. What they
 * say must not differ, which lint checks.
 */
#ifndef FG_VERSION_H
#define FG_VERSION_H

#define FG_VERSION "0.1"

#endif /* FG_VERSION_H */
