// SPDX-License-Identifier: GPL-2.0-only
// Recipe of forkgate-languages(7): sections in Java. Must not know what is in them.

// guide: begin
import java.io.IOException;

final class Forkgate {
    static final int MEMORY = 1, FILES = 2;

    static {
        System.loadLibrary("forkgatejni");
    }

    static native int enter(int domains);
    static native void leave(int domains);
    static native int prepare(int domains);
    static native int release();

    /** Does work, on this thread, while no fork copies the domains. */
    static void section(int domains, Runnable work) {
        int error = enter(domains);
        if (error != 0)
            throw new IllegalStateException("fork gate: error " + error);
        try {
            work.run();
        } finally {
            leave(domains);
        }
    }

    /** Starts a program, for a JVM that runs without LD_PRELOAD. */
    static Process start(ProcessBuilder builder) throws IOException {
        int error = prepare(FILES);
        if (error != 0)
            throw new IOException("fork gate: error " + error);
        try {
            return builder.start();
        } finally {
            release();
        }
    }
}
// guide: end
