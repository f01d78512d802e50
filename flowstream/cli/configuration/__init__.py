"""Settings: where they are read, and how they reach commands and pipelines.

options.py    every setting of the command line, written once
models.py     the models that turn text into values, made from options
settings.py   the places (variables, .env, pyproject.toml) and their order
defaults.py   the settings as defaults of the command line's options
overrides.py  the settings of one pipeline, put over its declaration
"""
