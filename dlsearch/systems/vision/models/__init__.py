"""Architectures: plain ``nn.Module`` classes that know no loss, one paper or family a file.

Every constructor takes ``in_shape`` (without the batch) and ``num_classes``; every forward takes
(B, *in_shape) and gives logits (B, num_classes).
"""
