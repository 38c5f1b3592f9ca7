"""Operations of operators, one use case per file."""
