//! Persistence of data keys: the MongoDB key vault collection.
