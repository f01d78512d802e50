"""What all tests share: pytest plugins for the report (`report`) and for failures (`evidence`)."""
