"""The end product of a study: the kept model, used for predictions and exported, without its data set."""
