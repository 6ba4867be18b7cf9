"""What crosses the wire: messages, the release gate, the codec, aggregation."""
