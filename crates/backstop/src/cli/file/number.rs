//! Which plain words of a document are numbers, and which numbers a double holds exactly.
//!
//! Money must not be rounded on its way: `google.protobuf.Struct` holds doubles, so what a double would
//! change is refused here, with its line, before anything is sent.

/// Whole numbers from here on are not all doubles; the server refuses them too.
const WHOLE_MAX: i128 = 1 << 53;
/// Decimal digits that every double keeps (`f64::DIGITS`).
const DIGITS_MAX: usize = f64::DIGITS as usize;

/// What a plain word is.
pub(super) enum Word {
    /// A number as JSON writes numbers, or nearly so: `+7` and `.5` count.
    Number,
    /// Something that YAML takes for a number and JSON cannot say, or that would lose digits: why.
    Refused(&'static str),
    /// No number.
    Text,
}

/// Judges a plain word by YAML's core schema.
pub(super) fn classify(word: &str) -> Word {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Word::Refused("is no number that JSON can say");
    }
    if is_radix(unsigned, "0x", 16) || is_radix(unsigned, "0o", 8) {
        return Word::Refused("is a number that is not written in decimal: put it in quotes if it is a text");
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole)
        || !digits(fraction)
        || (whole.is_empty() && fraction.is_empty())
        || exponent.is_some_and(|text| text.is_empty() || !digits(text))
    {
        return Word::Text;
    }
    if whole.len() > 1 && whole.starts_with('0') {
        return Word::Refused("would lose its leading zeros: put it in quotes");
    }
    Word::Number
}

fn is_radix(text: &str, prefix: &str, radix: u32) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
}

/// The number as a double that says the same.
///
/// # Errors
/// Why it cannot be one.
pub(super) fn exact(text: &str) -> Result<serde_json::Number, String> {
    let advice = || format!("write it as a text: \"{}\"", text.trim_start_matches('+'));
    if let Ok(whole) = text.parse::<i128>() {
        return match i64::try_from(whole) {
            Ok(small) if whole.abs() < WHOLE_MAX => Ok(serde_json::Number::from(small)),
            Ok(_) | Err(_) => {
                Err(format!("{text} is beyond 2^53, where doubles skip whole numbers; {}", advice()))
            }
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "2^53 is a double")]
    let too_large = WHOLE_MAX as f64;
    let double: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if !double.is_finite() || (double.fract() == 0.0 && double.abs() >= too_large) {
        return Err(format!("{text} is beyond 2^53, where doubles skip whole numbers; {}", advice()));
    }
    if significant_digits(text) > DIGITS_MAX {
        return Err(format!(
            "{text} has more than the {DIGITS_MAX} digits that a double keeps; {}",
            advice()
        ));
    }
    serde_json::Number::from_f64(double).ok_or_else(|| format!("{text} is no number"))
}

fn significant_digits(text: &str) -> usize {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    // Zeros at the end of a fraction say nothing that a double would lose.
    if mantissa.contains('.') { digits.trim_end_matches('0').len() } else { digits.len() }
}
