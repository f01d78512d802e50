"""Settings: where they are read, and how they reach commands and pipelines.

settings.py   the schema, the places (variables, .env, pyproject.toml) and their order
defaults.py   the settings as defaults of the command line's options
overrides.py  the settings of one pipeline, put over its declaration
"""
