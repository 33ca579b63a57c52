# SPDX-License-Identifier: GPL-2.0-only
# Completion of forkgate(1) for fish. It must not run the command.

# Is it one of these subcommands, before the program that it is to run?
function __forkgate_is
    set -l words (commandline -opc)
    set -q words[2]; and contains -- $words[2] $argv; or return
    contains -- $words[2] run trace; or return 0
    argparse -s help o/output= perfetto= timeout= on-timeout= patience= domains= raw-clone require-module verbose \
        -- $words[3..] 2>/dev/null; or return 0 # an option needs its value
    not set -q argv[1]
end

complete -c forkgate -f
complete -c forkgate -n __fish_use_subcommand -a run -d 'run an unmodified program with a gate'
complete -c forkgate -n __fish_use_subcommand -a ps -d 'list gates, sections, waiting forks and who they wait for'
complete -c forkgate -n __fish_use_subcommand -a watch -d 'show the same continuously'
complete -c forkgate -n __fish_use_subcommand -a stat -d 'print counters, and how long waits took'
complete -c forkgate -n __fish_use_subcommand -a check -d 'check whether forks wait here, and say what to do if not'
complete -c forkgate -n __fish_use_subcommand -a trace -d 'run a program and draw a timeline of its forks'
complete -c forkgate -n __fish_use_subcommand -l version -d 'print the version'
complete -c forkgate -n '__fish_use_subcommand; or __forkgate_is run ps watch stat check trace' -l help -d 'print usage'
complete -c forkgate -n '__forkgate_is ps' -a '(__fish_complete_pids)'
complete -c forkgate -n '__forkgate_is ps stat' -l json -d 'print one JSON object'
complete -c forkgate -n '__forkgate_is stat' -l prometheus -d 'print metrics'
complete -c forkgate -n '__forkgate_is watch' -s d -l delay -x -d 'seconds between two looks'
complete -c forkgate -n '__forkgate_is trace' -s o -l output -r -F -d 'where to draw'
complete -c forkgate -n '__forkgate_is trace' -l perfetto -r -F -d 'write a trace for Perfetto'
complete -c forkgate -n '__forkgate_is run' -l timeout -x -d 'how long a fork waits'
complete -c forkgate -n '__forkgate_is run' -l on-timeout -x -a 'fail proceed' -d 'what it does then'
complete -c forkgate -n '__forkgate_is run' -l patience -x -d 'how long others wait for a fork'
complete -c forkgate -n '__forkgate_is run' -l domains -x -a 'memory files memory,files' -d 'of which sections'
complete -c forkgate -n '__forkgate_is run' -l raw-clone -d 'also keep malloc whole'
complete -c forkgate -n '__forkgate_is run' -l require-module -d 'not with the gate of the library'
complete -c forkgate -n '__forkgate_is run' -l verbose -d 'say what is not covered'
complete -c forkgate -n '__fish_seen_subcommand_from run trace' \
    -a '(__fish_complete_subcommand --fcs-skip=2 -o --output --perfetto --timeout --on-timeout --patience --domains)'
