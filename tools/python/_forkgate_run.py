# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""What forkgate-run.pth imports in each Python program under "forkgate run"

The program knows nothing of this: it must run, and print, as it would without.
"""
try:
    import forkgate     # noqa: F401 (its forks are what it is imported for)
except Exception:
    pass
