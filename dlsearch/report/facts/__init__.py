"""The facts of a report, one file a kind: everything that its pages say."""
