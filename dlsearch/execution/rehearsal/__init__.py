"""The rehearsal: one batch of each kind of configuration, before anything is written.

A child process builds, trains and validates (:mod:`.trying`), watched by a callback
(:mod:`.watching`), and says what it saw (:mod:`.messages`). What that means for the study is
decided by the driver (:mod:`.judging`), which needs no torch for it.
"""
