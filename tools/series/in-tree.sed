# SPDX-License-Identifier: GPL-2.0-only
# From the module's sources to those of the kernel's tree: what is there for other kernels, for builds outside of the
# tree and for our own version numbers goes. What compat.h only names differently is done by run.

/^#include "\(compat\|version\)\.h"$/d
/^MODULE_VERSION(/d
/^ \* Kernel versions are for compat\.h alone\.$/d
s/FG_MAPPED_PAGE_[A-Z]*(\(gfp\|sizeof(struct fg_unit)\))/\1/
s/fg_cpu_lazy(cpu)/READ_ONCE(per_cpu(cpu_tlbstate_shared, cpu).is_lazy)/
s/^ \* The protocol\. The models in tools\/model use the same labels\.$/ * The protocol/
s/ (tools\/lib\/forkgate\.h)//
s/; are kprobes or ftrace switched off?//
s/See forkgate(4) for the semantics of$/See/
s/^ \* every call, forkgate(7) for the terms\.$/ * Documentation\/userspace-api\/forkgate.rst for rules and calls./
s/, documented in forkgate(4)/, see\n * Documentation\/userspace-api\/forkgate.rst/
s/forkgate(4)/Documentation\/userspace-api\/forkgate.rst/
