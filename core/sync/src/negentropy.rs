//! Negentropy V1 codec and splitter over level 0. Spec: ibgib §13.3.
