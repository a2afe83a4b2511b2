//! The pump: listeners, connections, upstream dialling and drain. Makes no decision about a document.
