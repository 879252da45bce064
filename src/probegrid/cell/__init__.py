"""One cell: what it is and needs (``prepare``), its flow (``run``), what it finds and leaves."""
