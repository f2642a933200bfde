"""From events to the broker: payloads, the durable outbox, MQTT."""
