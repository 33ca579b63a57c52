// SPDX-License-Identifier: GPL-2.0-only

// Recipe of forkgate-languages(7): a descriptor that no child inherits. Without the section the child has it. Must
// not start the child by anything but os/exec, whose clone libc does not know of.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// guide: begin

// #cgo pkg-config: libforkgate
// #include <forkgate.h>
import "C"

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
)

// section does work on one thread, during which no fork copies domains.
func section(domains C.uint, work func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if e := C.forkgate_enter(domains); e != 0 {
		return syscall.Errno(e)
	}
	defer C.forkgate_leave(domains)
	work()
	return nil
}

// start starts a program while no other thread is in a files section.
func start(command func() *exec.Cmd) (cmd *exec.Cmd, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for try := 0; try < 10; try++ {
		cmd = command()
		e := C.forkgate_prepare(C.FORKGATE_FILES, nil)
		if e != 0 {
			return nil, syscall.Errno(e)
		}
		err = cmd.Start()
		C.forkgate_release()
		// EAGAIN: the ticket had run out before the clone.
		if !errors.Is(err, syscall.EAGAIN) {
			break
		}
	}
	return cmd, err
}

// guide: end

const (
	hold  = 2 * time.Second
	trial = "/proc/self/comm" // a file that nothing else has open
)

func need(err error) {
	if err != nil {
		fmt.Println("#", err)
		os.Exit(2)
	}
}

func main() {
	halfWay := make(chan bool)
	forked := make(chan bool)
	left := make(chan error)
	go func() {
		left <- section(C.FORKGATE_FILES, func() {
			fd, err := syscall.Open(trial, syscall.O_RDONLY, 0)
			need(err)
			halfWay <- true
			select {
			case <-forked:
			case <-time.After(hold):
			}
			syscall.CloseOnExec(fd)
		})
	}()

	<-halfWay
	var output bytes.Buffer
	cmd, err := start(func() *exec.Cmd {
		cmd := exec.Command("ls", "-l", "/proc/self/fd")
		cmd.Stdout = &output
		return cmd
	})
	need(err)
	close(forked)
	need(<-left)
	need(cmd.Wait())
	if strings.Contains(output.String(), "/comm") {
		fmt.Println("# the child has inherited the descriptor")
		os.Exit(1)
	}
	fmt.Println("# the child has only its own descriptors")
}
