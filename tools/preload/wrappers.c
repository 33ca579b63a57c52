// SPDX-License-Identifier: GPL-2.0-only
/*
 * wrappers.c - the wrappers that tools/preload/generate makes of the table
 *
 * Built twice, for the functions that are always sections and for those that
 * are with --raw-clone only. The headers are here for the compiler to compare
 * the table with; nothing else must be in this file.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <aliases.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <err.h>
#include <fmtmsg.h>
#include <fnmatch.h>
#include <glob.h>
#include <grp.h>
#include <gshadow.h>
#include <iconv.h>
#include <ifaddrs.h>
#include <libintl.h>
#include <link.h>
#include <locale.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/ether.h>
#include <netinet/in.h>
#include <nl_types.h>
#include <printf.h>
#include <pthread.h>
#include <pwd.h>
#include <regex.h>
#include <resolv.h>
#include <semaphore.h>
#include <shadow.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <threads.h>
#include <time.h>
#include <uchar.h>
#include <unistd.h>
#include <utmp.h>
#include <utmpx.h>
#include <wchar.h>
#include <wordexp.h>

#include "section.h"

#include CODE
