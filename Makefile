# SPDX-License-Identifier: GPL-2.0-only
# The one entrance to building, checking and installing forkgate; "make help"
# lists what it can do. It must not know how a part is built: that is in the
# part's own Makefile or script.

MAKEFLAGS += --no-print-directory
testhost := tools/testhost

.PHONY: module
# Variables of the command line are in the environment of what is run here.
module: ## build the module [KVER=RELEASE|KDIR=FOLDER] [DEBUG=1]
	@tools/kmod build

.PHONY: lib selftests native programs
lib: ## build the library and the command
	@set -e; for dir in $(parts); do $(MAKE) -C $$dir; done

# The tests need the framework that comes with the kernel's source.
framework = KSELFTEST_DIR="$$($(testhost)/kernel path source)/tools/testing/selftests"
test_dirs := $(patsubst %/Makefile,%,$(wildcard selftests/Makefile selftests/*/Makefile))
selftests: lib ## build the tests
	@$(testhost)/kernel fetch source
	@set -e; for dir in $(test_dirs); do $(MAKE) -C $$dir $(framework); done

native: selftests ## run the tests that need no module, on this machine
	@$(MAKE) -C selftests/lib $(framework) run-native
	@$(MAKE) -C selftests/examples run-native
	@$(MAKE) -C selftests/run $(framework) run-native
	@$(MAKE) -C selftests/tools run-native
	@$(MAKE) -C selftests/recipes run-native
	@$(MAKE) -C selftests/python run-native

programs: lib
	@$(MAKE) -C tools/demo

.PHONY: setup demo demo-here check check-all check-release lint bench mutants fuzz soak model series
setup: ## install the Debian packages that targets for developers need
	@tools/setup

demo: setup programs ## show what the gate does, in a virtual machine [FORKS=1000]
	@echo "Booting a virtual machine; the table takes about four minutes after that."
	@$(testhost)/run --kernel 6.12 --timeout 1800 -- tools/demo/table build/demo

demo-here: programs ## the same on this machine, as any user, with or without the module [FORKS=1000]
	@tools/demo/table build/demo

check: setup ## build everything and test it on kernel 6.12
	@tools/check basic

check-all: setup ## the same, on all kernels, with all checkers
	@tools/check all

check-release: setup ## also what takes too long for that; goes on where it was interrupted
	@tools/check release

lint: setup ## check the sources and the documentation
	@tools/lint/run

model: setup ## check the models of the protocol, and mutants of them that must fail
	@tools/model/run

mutants: setup selftests ## remove one guard after the other: tests must fail
	@selftests/mutants/run

series: setup ## write patches for the kernel's own tree into build/series, then: tools/series/run check
	@tools/series/run

SECONDS ?= 600
fuzz: setup ## run programs made at random in a virtual machine with all checkers [SECONDS=600]
	@selftests/fuzz/run $(SECONDS)

HOURS ?= 1
soak: setup ## fork and reload in a virtual machine among all that disturbs [HOURS=1] [KERNEL=6.12]
	@selftests/soak/run $(HOURS)

bench: setup lib ## measure what sections and forks cost, with a limit beside each figure
	@tools/bench/run

# ---- installing ----

PREFIX ?= /usr/local
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR ?= $(PREFIX)/lib
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
UDEVDIR ?= $(PREFIX)/lib/udev/rules.d
export DESTDIR PREFIX INCLUDEDIR LIBDIR BINDIR MANDIR UDEVDIR

parts := $(patsubst %/Makefile,%,$(wildcard $(addprefix tools/,lib/Makefile preload/Makefile forkgate/Makefile)))
pages := $(wildcard tools/man/*.[1-8])
rule := 60-forkgate.rules

.PHONY: install install-module install-user uninstall clean help
.PHONY: dist deb
dist: ## make the archive of a release, of what is committed
	@packaging/build dist

deb: ## make Debian's packages of it
	@tools/setup packaging
	@packaging/build deb

install: install-module ## install [DESTDIR=] [PREFIX=/usr/local] [KVER=]
	@$(MAKE) install-user
	@[ -n "$(DESTDIR)" ] || echo "Installed. To load the module now: modprobe forkgate"

install-module: ## install the module alone
	@tools/kmod install || { echo "Without the module: make install-user" >&2; exit 1; }

install-user: lib ## install the library, command, manual pages and udev rule
	@set -e; for dir in $(parts); do $(MAKE) -C $$dir install; done
	install -D -m 644 packaging/$(rule) $(DESTDIR)$(UDEVDIR)/$(rule)
	@set -e; for page in $(pages); do \
		install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}; \
	done
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" -ne 0 ] || PATH=$$PATH:/sbin ldconfig

uninstall: ## undo install (the same DESTDIR, PREFIX and KVER)
	@tools/kmod uninstall
	@set -e; for dir in $(parts); do $(MAKE) -C $$dir uninstall; done
	rm -f $(DESTDIR)$(UDEVDIR)/$(rule)
	@for page in $(pages); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}; done
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" -ne 0 ] || PATH=$$PATH:/sbin ldconfig

clean: ## remove what was built; kernels stay in the cache of tools/testhost/kernel
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
