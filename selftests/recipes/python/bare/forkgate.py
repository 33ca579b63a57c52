# SPDX-License-Identifier: GPL-2.0-only
"""Sections that are not there: found before the package, it takes them out of a recipe,
which has to fail then. Must not change anything else.
"""
from threading import Lock as lock      # noqa: F401

MEMORY, FILES = 1, 2


class section:
    def __init__(self, domains):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *exception):
        pass

    def __call__(self, function):
        return function
