"""How a model learns: from labels, from a teacher's answers, from many teachers, without data."""
