"""Callbacks for training frameworks, each in a module of its framework's name.

Nothing here is imported with `geco_core`, and geco-core requires none of the frameworks: import
`geco_core.integrations.lightning` or `geco_core.integrations.transformers` where the framework is
installed. Other loops need no callback: one line, `objective.step()` after `optimizer.step()`.
"""
