#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Adds a certificate to the machine owner's keys (MokList) in a file of OVMF's variables, as MokManager does when
its questions are answered at the console. For packaging/secure-boot; must not change the file that it reads.

usage: enroll.py VARIABLES CERTIFICATE RESULT
"""

import struct
import sys
import uuid

SHIM = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23").bytes_le
X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
NON_VOLATILE_BOOT_SERVICE = 3
VARIABLE = 0x55aa
ADDED = 0x3f


def main(source, certificate, result):
    with open(source, "rb") as file:
        store = bytearray(file.read())
    with open(certificate, "rb") as file:
        der = file.read()
    # After the header of the volume and that of the store, to the end of the list of variables
    place = struct.unpack_from("<H", store, 0x30)[0] + 28
    while struct.unpack_from("<H", store, place)[0] == VARIABLE:
        place += 60 + sum(struct.unpack_from("<II", store, place + 36))
        place = (place + 3) & ~3
    name = "MokList\0".encode("utf-16-le")
    # EFI_SIGNATURE_LIST
    data = X509 + struct.pack("<III", 44 + len(der), 0, 16 + len(der)) + SHIM + der
    # AUTHENTICATED_VARIABLE_HEADER
    variable = struct.pack("<HBBIQ16sIII", VARIABLE, ADDED, 0, NON_VOLATILE_BOOT_SERVICE, 0, bytes(16), 0, len(name),
                           len(data)) + SHIM + name + data
    if set(store[place:place + len(variable)]) != {0xff}:
        sys.exit(f"{source}: no room for another variable")
    store[place:place + len(variable)] = variable
    with open(result, "wb") as file:
        file.write(store)


if len(sys.argv) != 4:
    sys.exit(__doc__)
main(*sys.argv[1:])
