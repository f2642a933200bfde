"""The demo models: detector, classifier, segmenter; training, evaluation."""
