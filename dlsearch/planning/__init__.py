"""Planning: a study is composed and checked before anything is written, then opened or resumed."""
