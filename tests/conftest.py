"""What holds for every test."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs so, and every process started from here would ignore the Ctrl-C that a test sends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
