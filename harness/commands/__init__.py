"""What each command of the line does, between the parser and the parts: one module per family of commands."""
