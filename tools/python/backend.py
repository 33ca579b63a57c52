# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""Makes a wheel of the package, for pip

There are backends that know more, but pip would want to get them from the
network, and setuptools has no place for a .pth file. Must not write anywhere
but where pip says.
"""
import base64
import hashlib
import os
import re
import zipfile

NAME = 'forkgate'
with open('../../module/version.h', encoding='ascii') as source:
    VERSION = re.search('^#define FG_VERSION "(.*)"', source.read(), re.M).group(1)
INFO = f'{NAME}-{VERSION}.dist-info'
WHEEL = f'{NAME}-{VERSION}-py3-none-any.whl'
FILES = ['_forkgate_run.py', 'forkgate-run.pth']
METADATA = f'''Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: Fork-safe sections: forks wait until other threads have left them
License: LGPL-2.1-or-later OR MIT
Requires-Python: >=3.11
'''
TAGS = '''Wheel-Version: 1.0
Generator: forkgate
Root-Is-Purelib: true
Tag: py3-none-any
'''


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    record = []
    modules = sorted(f'{NAME}/{file}' for file in os.listdir(NAME) if file.endswith('.py'))
    with zipfile.ZipFile(os.path.join(wheel_directory, WHEEL), 'w') as wheel:
        def add(name, data):
            wheel.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()
            record.append(f'{name},sha256={digest},{len(data)}')

        for file in modules + FILES:
            with open(file, 'rb') as source:
                add(file, source.read())
        add(f'{INFO}/METADATA', METADATA.encode())
        add(f'{INFO}/WHEEL', TAGS.encode())
        wheel.writestr(f'{INFO}/RECORD', '\n'.join(record + [f'{INFO}/RECORD,,', '']))
    return WHEEL


def build_sdist(sdist_directory, config_settings=None):
    raise NotImplementedError('the source is that of forkgate itself')
