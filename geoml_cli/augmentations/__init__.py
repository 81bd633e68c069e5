"""Changes of a batch that leave what it means as it is: parts of `--augment`."""
