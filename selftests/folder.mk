# SPDX-License-Identifier: GPL-2.0-only
#
# For the Makefiles of folders of tests: builds them like those of this folder, in the kernel's tree and out of it,
# into build/selftests/FOLDER. Include it when the programs and flags are set.

KSELFTEST_DIR ?= ../..
ifeq ($(wildcard $(KSELFTEST_DIR)/lib.mk),)
ifeq ($(filter clean,$(MAKECMDGOALS)),)
$(error No $(KSELFTEST_DIR)/lib.mk: set KSELFTEST_DIR to tools/testing/selftests of a kernel source tree)
endif
endif

CFLAGS += -I$(KSELFTEST_DIR) $(if $(wildcard ../../uapi/linux/forkgate.h),-I../../uapi) $(KHDR_INCLUDES)

ifneq ($(KSELFTEST_DIR),../..)
O ?= $(abspath ../../build)
OUTPUT ?= $(O)/selftests/$(notdir $(CURDIR))
override OUTPUT := $(abspath $(OUTPUT))
$(shell mkdir -p $(OUTPUT))
endif

include $(KSELFTEST_DIR)/lib.mk
