"""What each command, or group of commands, of `flowstream` does.

A function here is called with the values of the options that the function of the same name in
`usage/` declares. It asks the other rooms to do the work, and prints the result. What two commands
share is in a room named for what it does.
"""
