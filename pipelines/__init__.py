"""Example applications. They use only what `flowstream` exports."""
