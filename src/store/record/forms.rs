//! The saved forms of ids, of texts, and of what wraps another value.

use std::sync::Arc;

use super::{ConversionV1, DeadlineV1, Form, WindowV1};
use crate::engine::JobId;
use crate::engine::job::{Conversion, Deadline, Window};

impl Form for JobId {
    type Stored = String;

    fn store(&self) -> String {
        self.as_str().to_owned()
    }

    fn restore(stored: String) -> Result<JobId, String> {
        stored.parse().map_err(|_| format!("`{}` is no job id", stored.escape_debug()))
    }
}

impl Form for Arc<str> {
    type Stored = String;

    fn store(&self) -> String {
        self.as_ref().to_owned()
    }

    fn restore(stored: String) -> Result<Arc<str>, String> {
        Ok(stored.into())
    }
}

impl Form for Arc<Conversion> {
    type Stored = ConversionV1;

    fn store(&self) -> ConversionV1 {
        self.as_ref().store()
    }

    fn restore(stored: ConversionV1) -> Result<Arc<Conversion>, String> {
        Form::restore(stored).map(|conversion: Conversion| Arc::new(conversion))
    }
}

impl Form for Arc<Deadline> {
    type Stored = DeadlineV1;

    fn store(&self) -> DeadlineV1 {
        self.as_ref().store()
    }

    fn restore(stored: DeadlineV1) -> Result<Arc<Deadline>, String> {
        Form::restore(stored).map(|deadline: Deadline| Arc::new(deadline))
    }
}

impl Form for Arc<Window> {
    type Stored = WindowV1;

    fn store(&self) -> WindowV1 {
        self.as_ref().store()
    }

    fn restore(stored: WindowV1) -> Result<Arc<Window>, String> {
        Form::restore(stored).map(|window: Window| Arc::new(window))
    }
}

impl<T: Form> Form for Box<T> {
    type Stored = T::Stored;

    fn store(&self) -> Self::Stored {
        (**self).store()
    }

    fn restore(stored: Self::Stored) -> Result<Self, String> {
        T::restore(stored).map(Box::new)
    }
}

impl<T: Form> Form for Option<T> {
    type Stored = Option<T::Stored>;

    fn store(&self) -> Self::Stored {
        self.as_ref().map(Form::store)
    }

    fn restore(stored: Self::Stored) -> Result<Self, String> {
        stored.map(Form::restore).transpose()
    }
}

impl<T: Form> Form for Vec<T> {
    type Stored = Vec<T::Stored>;

    fn store(&self) -> Self::Stored {
        self.iter().map(Form::store).collect()
    }

    fn restore(stored: Self::Stored) -> Result<Self, String> {
        stored.into_iter().map(Form::restore).collect()
    }
}
