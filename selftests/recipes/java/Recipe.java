// SPDX-License-Identifier: GPL-2.0-only
// Recipe of forkgate-languages(7): no program starts while another thread is in a files section. Without the section
// one does. Must not look into the child: the helper that the runtime starts first has closed all descriptors there.

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

final class Recipe {
    private static final int HOLD = 2;
    private static final int BROKEN = 1;

    public static void main(String[] arguments) throws Exception {
        boolean prepared = System.getenv("LD_PRELOAD") == null;
        ProcessBuilder builder = new ProcessBuilder("true");
        CountDownLatch halfWay = new CountDownLatch(1);
        CountDownLatch started = new CountDownLatch(1);
        boolean[] during = new boolean[1];
        Thread writer = new Thread(() -> Forkgate.section(Forkgate.FILES, () -> {
            halfWay.countDown();
            try {
                during[0] = started.await(HOLD, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }));

        builder.start().waitFor();      // all that is loaded at first use
        writer.start();
        halfWay.await();
        Process process = prepared ? Forkgate.start(builder) : builder.start();
        started.countDown();
        writer.join();
        if (process.waitFor() != 0)
            throw new IllegalStateException("the program failed");
        System.out.println("# " + (prepared ? "prepared" : "preloaded") + ": the program started " +
                           (during[0] ? "during" : "after") + " the section");
        System.exit(during[0] ? BROKEN : 0);
    }
}
